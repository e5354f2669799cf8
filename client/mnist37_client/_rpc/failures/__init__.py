"""Translation of what fails in a call into the exceptions of mnist37_client.errors."""
