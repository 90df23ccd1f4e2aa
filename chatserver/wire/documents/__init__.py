"""The API described for machines: OpenAPI for HTTP, AsyncAPI for the WebSocket."""
