"""How good a cascade is on labelled frames: labels, error map, calibration, and what the detail branch gains."""
