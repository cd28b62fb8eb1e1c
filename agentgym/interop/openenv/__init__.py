"""OpenEnv, both ways: ``server`` serves an environment, ``others`` and ``own`` play what is served.

The protocol: messages in JSON over a WebSocket, one session per connection (``reset``, ``step``,
``state``, ``close``), and HTTP routes for tasks, schemas and health. Ours needs none of OpenEnv's
packages; the tests play it with OpenEnv's own client and server.
"""
