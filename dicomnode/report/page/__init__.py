"""The one-page summary as an image: views of the volume, trend and numbers, laid out in one style."""
