"""The description of the API for programs and for the reference: OpenAPI 3.1, served at `/openapi.json`.

It is made of the route table (`receiver.api.routes`), of the schemas that check requests, of the models of answers
here, and of one row for each operation (`operations`). Nothing of it is imported before somebody asks for it.
"""
