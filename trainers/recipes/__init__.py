"""Recipes: one YAML file per named set of settings."""
