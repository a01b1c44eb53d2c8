"""What may repair a network once a deficit is gone."""
