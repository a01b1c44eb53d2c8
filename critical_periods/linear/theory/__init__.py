"""Deep linear learning and synthetic source variance, in closed form."""
