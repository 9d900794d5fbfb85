package rpc

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/peerpb"
	"github.com/werbenhu/registry/rpc/registrypb"
)

// access is who may call a method.
type access int

const (
	// open to everybody: it shows nothing and changes nothing.
	open access = iota + 1
	// byToken: a valid token, and what the permission's needs demand of it.
	byToken
	// byFirstToken: everybody, until the first token exists. Then the method fails.
	byFirstToken
	// byPeers: other nodes, on the bind port only.
	byPeers
)

// permission is what a method demands of its caller.
type permission struct {
	access access
	// needs returns what one request demands, from the values that the handler uses;
	// nil: nothing more.
	needs func(req any) []auth.Need
	// early: it may be called at a node that has not caught up and so does not know
	// whether tokens are on. Its handler calls settle before any work.
	early bool
	// waits: the handler waits in RecvMsg, so its stream has to be ended for it.
	waits bool
	// act reports whether a request is an administrative act, which the audit log has;
	// nil: none is. It is called after the decision and before the handler.
	act func(c *call, req any) bool
}

// permissions has every method of both ports, and the HTTP routes that are calls of
// their own. A server with another one does not
// start. A new method gets its line here together with its handler.
var permissions = map[string]permission{
	registrypb.Registry_Register_FullMethodName: {access: byToken, early: true, needs: onGroup(fsm.Register), act: onForeignMember},
	// One that changes a member of another token fails: see Server.registerMany.
	registrypb.Registry_RegisterMany_FullMethodName: {access: byToken, early: true, needs: ofRegistrations},
	registrypb.Registry_Deregister_FullMethodName:   {access: byToken, early: true, needs: onGroup(fsm.Register | fsm.Operate), act: onForeignMember},
	// The leader checks each lease of a heartbeat: see Server.heartbeat.
	registrypb.Registry_Heartbeat_FullMethodName:       {access: byToken, early: true},
	registrypb.Registry_HeartbeatStream_FullMethodName: {access: byToken, early: true},
	registrypb.Registry_Match_FullMethodName:           {access: byToken, needs: onGroup(fsm.Discover)},
	registrypb.Registry_MatchMany_FullMethodName:       {access: byToken, needs: onGroup(fsm.Discover)},
	registrypb.Registry_Members_FullMethodName:         {access: byToken, needs: onGroup(fsm.Discover)},
	registrypb.Registry_Groups_FullMethodName:          {access: byToken, needs: onPrefix},
	registrypb.Registry_SetGroup_FullMethodName:        {access: byToken, early: true, needs: onGroup(fsm.Operate), act: always},
	registrypb.Registry_DeleteGroup_FullMethodName:     {access: byToken, early: true, needs: onGroup(fsm.Operate), act: always},
	registrypb.Registry_UpdateMember_FullMethodName:    {access: byToken, early: true, needs: ofUpdate, act: onForeignMember},
	registrypb.Registry_AcceptLoss_FullMethodName:      {access: byToken, early: true, needs: onGroup(fsm.Operate), act: always},
	registrypb.Registry_Index_FullMethodName:           {access: byToken},
	registrypb.Registry_Guard_FullMethodName:           {access: byToken, early: true, needs: onGroup(fsm.Discover)},
	registrypb.Registry_Watch_FullMethodName:           {access: byToken, needs: ofWatch},

	registrypb.Cluster_Status_FullMethodName:            {access: byToken, early: true, needs: ofStatus},
	registrypb.Cluster_Join_FullMethodName:              {access: byToken, needs: admin, act: always},
	registrypb.Cluster_Remove_FullMethodName:            {access: byToken, early: true, needs: admin, act: always},
	registrypb.Cluster_Leave_FullMethodName:             {access: byToken, needs: admin, act: always},
	registrypb.Cluster_Transfer_FullMethodName:          {access: byToken, early: true, needs: admin, act: always},
	registrypb.Cluster_RaiseFeatureLevel_FullMethodName: {access: byToken, early: true, needs: admin, act: always},
	// The whole state, with the tokens' hashes: see docs/security.md.
	registrypb.Cluster_SaveSnapshot_FullMethodName:    {access: byToken, needs: admin, act: always},
	registrypb.Cluster_RestoreSnapshot_FullMethodName: {access: byToken, early: true, needs: admin, act: always},

	// Its handler decides about callers without tokens: see Server.mayDiagnose.
	registrypb.Cluster_Diagnose_FullMethodName: {access: byToken, early: true, needs: admin, act: always},

	registrypb.Tokens_Init_FullMethodName:   {access: byFirstToken, act: always},
	registrypb.Tokens_Create_FullMethodName: {access: byToken, early: true, needs: admin, act: always},
	registrypb.Tokens_Rotate_FullMethodName: {access: byToken, early: true, needs: admin, act: always},
	registrypb.Tokens_Revoke_FullMethodName: {access: byToken, early: true, needs: admin, act: always},
	registrypb.Tokens_List_FullMethodName:   {access: byToken, needs: admin},
	registrypb.Tokens_Self_FullMethodName:   {access: byToken},

	discoveryRoute: {access: byToken, needs: ofTargets},

	peerpb.Peer_Hello_FullMethodName:     {access: byPeers},
	peerpb.Peer_Term_FullMethodName:      {access: byPeers},
	peerpb.Peer_ReadIndex_FullMethodName: {access: byPeers},
	peerpb.Peer_Join_FullMethodName:      {access: byPeers, act: always},
	peerpb.Peer_Invite_FullMethodName:    {access: byPeers},
	peerpb.Peer_Status_FullMethodName:    {access: byPeers},
	peerpb.Peer_Check_FullMethodName:     {access: byPeers},
	peerpb.Peer_State_FullMethodName:     {access: byPeers},
	// It demands a node's certificate: see peerServer.RecoverTokens.
	peerpb.Peer_RecoverTokens_FullMethodName: {access: byPeers, act: always},

	grpc_health_v1.Health_Check_FullMethodName: {access: open},
	grpc_health_v1.Health_List_FullMethodName:  {access: open},
	grpc_health_v1.Health_Watch_FullMethodName: {access: open},

	grpc_reflection_v1.ServerReflection_ServerReflectionInfo_FullMethodName:      {access: byToken, waits: true},
	grpc_reflection_v1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: {access: byToken, waits: true},
}

// unguarded returns the methods of a server that have no permission, or one that
// cannot apply on its port.
func unguarded(server *grpc.Server, port port) (methods []string) {
	for service, info := range server.GetServiceInfo() {
		for _, m := range info.Methods {
			full := "/" + service + "/" + m.Name
			if p := permissions[full]; p.access == 0 || p.access == byPeers && port != bindPort {
				methods = append(methods, full)
			}
		}
	}
	slices.Sort(methods)
	return methods
}

// checkPermissions refuses a server with a method that nobody guards.
func checkPermissions(servers map[port]*grpc.Server) error {
	for _, port := range slices.Sorted(maps.Keys(servers)) {
		if methods := unguarded(servers[port], port); len(methods) > 0 {
			return fmt.Errorf("methods without a permission on the %s port: %s", port, strings.Join(methods, ", "))
		}
	}
	return nil
}

// onGroup demands one of the rights on the request's group.
func onGroup(anyOf fsm.Right) func(req any) []auth.Need {
	return func(req any) []auth.Need {
		return ofGroup(anyOf, req.(interface{ GetGroup() string }).GetGroup())
	}
}

// ofGroup demands nothing for the group of the nodes, which every token may read and
// no call changes.
func ofGroup(anyOf fsm.Right, group string) []auth.Need {
	if group == fsm.NodesGroupName {
		return nil
	}
	return []auth.Need{{AnyOf: anyOf, Field: "group", Name: group}}
}

func onPrefix(req any) []auth.Need {
	return []auth.Need{{AnyOf: fsm.Discover, Field: "prefix", Name: req.(*registrypb.GroupsRequest).GetPrefix()}}
}

// ofUpdate: a process may update its own registration, which it names by its instance.
func ofUpdate(req any) []auth.Need {
	r := req.(*registrypb.UpdateMemberRequest)
	if len(r.GetInstance()) > 0 {
		return ofGroup(fsm.Register|fsm.Operate, r.GetGroup())
	}
	return ofGroup(fsm.Operate, r.GetGroup())
}

// ofWatch: the list of groups names all of them, so it needs a grant for all. The
// groups to resume are part of the target or have no effect.
func ofWatch(req any) []auth.Need {
	switch target := req.(*registrypb.WatchRequest).GetTarget().(type) {
	case *registrypb.WatchRequest_Group:
		return ofGroup(fsm.Discover, target.Group)
	case *registrypb.WatchRequest_Prefix:
		needs := []auth.Need{{AnyOf: fsm.Discover, Field: "prefix", Name: target.Prefix}}
		for _, k := range req.(*registrypb.WatchRequest).GetKnown() {
			needs = append(needs, auth.Need{AnyOf: fsm.Discover, Field: "known.group", Name: k.GetGroup()})
		}
		return needs
	case *registrypb.WatchRequest_Groups:
		return onAllGroups(req)
	}
	return nil // the nodes, or no target: an error
}

// ofStatus: the status of the nodes is for every token, that of a group for those that
// may read the group.
func ofStatus(req any) []auth.Need {
	if group := req.(*registrypb.StatusRequest).GetGroup(); group != "" {
		return ofGroup(fsm.Discover, group)
	}
	return nil
}

// onAllGroups is for what shows things about any group.
func onAllGroups(any) []auth.Need { return []auth.Need{{AnyOf: fsm.Discover, Field: "prefix"}} }

func admin(any) []auth.Need { return []auth.Need{{AnyOf: fsm.Admin}} }
