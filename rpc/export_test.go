package rpc

import "slices"

// UpdateDocuments is set when tests write documents.
var UpdateDocuments = update

// ForwardedKey marks a forwarded call.
const ForwardedKey = forwardedKey

// ClientMethods and NodeMethods are the methods of the two ports, and Routes those of
// HTTP on the client port.
func (s *Server) ClientMethods() []string { return s.methods(clientPort) }

func (s *Server) NodeMethods() []string { return s.methods(bindPort) }

func (s *Server) Routes() []string { return s.http.routes }

func (s *Server) methods(p port) (methods []string) {
	server := s.clients
	if p == bindPort {
		server = s.nodes
	}
	for service, info := range server.GetServiceInfo() {
		for _, m := range info.Methods {
			methods = append(methods, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(methods)
	return methods
}

// H2Frame adds an HTTP/2 frame.
var H2Frame = h2Frame
