"""What surrounds a study and is not in its images: the order that it answers, and the patient's prior scans."""
