"""Every RPC of mnist37.v1 as JSON."""
