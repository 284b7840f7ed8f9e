"""What a written model reaches: on labelled pictures, and in a lower precision compared with fp32."""
