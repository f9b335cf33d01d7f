"""The plan of a synthetic city: streets, blocks, buildings, trees and vehicles, and what changes between the dates."""
