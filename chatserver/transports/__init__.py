"""Doors: HTTP, SSE, WebSocket, static files."""
