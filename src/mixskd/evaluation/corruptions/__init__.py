"""Common corruptions of images at five severities (Hendrycks and Dietterich, ICLR 2019)."""
