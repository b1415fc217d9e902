"""The HTTP API for management, on Django REST framework: lists, details, and every order of the catalogue.

A project includes ``django_durable_jobs.api.urls``. Nothing is open by default: who may is asked for each view and each
order, whatever the project's own REST settings say.
"""
