"""The method of the OpenVIS paper in torch; knows nothing of files in the cloud, videos or clusters."""

__version__ = "0.1.0"
