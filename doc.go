// Package registry embeds a node of the registry in any Go program: fill a
// [Config], call [Start], and the program is a member of a Raft-replicated
// service registry that answers on two ports, one for nodes and one for
// clients.
//
//	cfg := registry.DefaultConfig()
//	cfg.ID, cfg.Bind, cfg.Addr, cfg.DataDir = "node-1", "127.0.0.1:7370", "127.0.0.1:9800", dir
//	node, err := registry.Start(ctx, cfg)
//	...
//	defer node.Close()
//
// Programs that only use a registry need package sdk instead, which holds
// neither raft nor a log.
package registry
