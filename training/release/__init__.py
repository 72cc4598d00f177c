"""From a run to the node: the gate's verdict, promotion into service, and the way back."""
