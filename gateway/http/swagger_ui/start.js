// No validator: it would send the address of this API to a service of Swagger's.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#api", validatorUrl: null });
