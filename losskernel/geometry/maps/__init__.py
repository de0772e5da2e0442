"""Maps of points: flat, in the tangent space, and on a sphere."""
