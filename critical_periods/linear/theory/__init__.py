"""Theory of deep linear learning: closed forms, gradient flow, simulation, and synthetic RSV."""
