"""What goes in and comes out: frames, their segmentation, images and video files."""
