"""What may be asked: arms, proposals, the gate, the queue."""
