"""Plugin that puts Request and Response of prism_wsgi where WebOb's tests find WebOb's own."""

import webob
import webob.request
import webob.response

import prism_wsgi

webob.Request = webob.request.Request = prism_wsgi.Request  # type: ignore[misc]
webob.Response = webob.response.Response = prism_wsgi.Response  # type: ignore[misc]
webob.request.BaseRequest.ResponseClass = prism_wsgi.Response
