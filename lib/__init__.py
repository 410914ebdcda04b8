"""Helpers of the SE-ResNet study: study file → runs → training → statistics → figures."""
