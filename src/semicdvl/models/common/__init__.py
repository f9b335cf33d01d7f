"""Parts that several networks share: layers, heads, the Siamese forward pass, feature perturbations."""
