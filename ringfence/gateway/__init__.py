"""The MCP gateway: who may call which tool, with what data coming back."""
