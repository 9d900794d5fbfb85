package rpc

import (
	"bufio"
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/werbenhu/registry/rpc/peerpb"
	"github.com/werbenhu/registry/store"
)

// peerServer answers the calls of other nodes.
type peerServer struct {
	peerpb.UnimplementedPeerServer
	server *Server
}

func (p *peerServer) store() *store.Store { return p.server.store }

func (p *peerServer) Hello(context.Context, *peerpb.HelloRequest) (*peerpb.HelloResponse, error) {
	h := p.store().Self()
	resp := &peerpb.HelloResponse{
		Cluster: h.Cluster, Id: h.ID, Bind: h.Bind, Addr: h.Addr, Version: h.Version,
		Incarnation: h.Incarnation, HasState: h.HasState, Leader: h.Leader, ClusterId: h.ClusterID,
		RecoveredFrom: h.RecoveredFrom, FeatureLevel: h.FeatureLevel, DataLevel: h.DataLevel,
	}
	for _, f := range h.Founders {
		resp.Founders = append(resp.Founders, &peerpb.Founder{Id: f.ID, Bind: f.Bind, Addr: f.Addr, Version: f.Version, Incarnation: f.Incarnation})
	}
	return resp, nil
}

func (p *peerServer) Term(_ context.Context, req *peerpb.TermRequest) (*peerpb.TermResponse, error) {
	if err := p.store().IsTarget(req.Id, req.ClusterId); err != nil {
		return nil, toStatus(err)
	}
	return &peerpb.TermResponse{Term: p.store().Term()}, nil
}

func (p *peerServer) ReadIndex(ctx context.Context, req *peerpb.ReadIndexRequest) (*peerpb.ReadIndexResponse, error) {
	if err := p.store().IsTarget(req.Id, req.ClusterId); err != nil {
		return nil, toStatus(err)
	}
	index, err := p.store().ReadIndex(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	return &peerpb.ReadIndexResponse{Index: index}, nil
}

func (p *peerServer) Check(ctx context.Context, req *peerpb.CheckRequest) (*peerpb.CheckResponse, error) {
	if err := p.store().IsTarget(req.Id, req.ClusterId); err != nil {
		return nil, toStatus(err)
	}
	r, err := p.store().Check(ctx, store.CheckRequest{Index: req.Index, Rings: ringsFromWire(req.Rings)})
	if err != nil {
		return nil, toStatus(err)
	}
	return &peerpb.CheckResponse{DigestVersion: r.Version, Known: r.Known, Digest: r.Digest, Rings: ringsToWire(r.Rings)}, nil
}

// stateChunk is the size of one message of a state.
const stateChunk = 64 << 10

// State sends the state in chunks.
func (p *peerServer) State(req *peerpb.StateRequest, stream grpc.ServerStreamingServer[peerpb.StateResponse]) error {
	if err := p.store().IsTarget(req.Id, req.ClusterId); err != nil {
		return toStatus(err)
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(p.server.ctx, func() { cancel(errStopping) })()
	out := bufio.NewWriterSize(chunkWriter(func(data []byte) error {
		return stream.Send(&peerpb.StateResponse{Data: data})
	}), stateChunk)
	if err := p.store().WriteState(ctx, req.MinIndex, out); err != nil {
		return toStatus(err)
	}
	return toStatus(out.Flush())
}

// chunkWriter sends what is written in messages of at most stateChunk.
type chunkWriter func(data []byte) error

// Write sends a copy: gRPC may use a message after Send returned.
func (send chunkWriter) Write(p []byte) (int, error) {
	for chunk := range slices.Chunk(slices.Clone(p), stateChunk) {
		if err := send(chunk); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (p *peerServer) Join(ctx context.Context, req *peerpb.JoinRequest) (*peerpb.JoinResponse, error) {
	caller, _ := peer.FromContext(ctx)
	if err := p.server.peers.isNode(caller, req.Id); err != nil {
		return nil, toStatus(err)
	}
	err := p.store().AdmitNode(ctx, store.Hello{
		Cluster: req.Cluster, ID: req.Id, Bind: req.Bind, Addr: req.Addr, Version: req.Version,
		Incarnation: req.Incarnation, Nonvoter: req.Nonvoter, Zone: req.Zone, HasState: req.HasState,
		ClusterID: req.ClusterId, FeatureLevel: req.FeatureLevel,
	})
	if err != nil {
		return nil, toStatus(err)
	}
	return &peerpb.JoinResponse{ClusterId: p.store().ClusterID()}, nil
}

func (p *peerServer) Invite(ctx context.Context, req *peerpb.InviteRequest) (*peerpb.InviteResponse, error) {
	if err := p.store().Invited(ctx, req.Bind, req.Nonvoter); err != nil {
		return nil, toStatus(err)
	}
	return &peerpb.InviteResponse{Id: p.store().ID()}, nil
}

func (p *peerServer) Status(ctx context.Context, req *peerpb.StatusRequest) (*peerpb.StatusResponse, error) {
	st := p.store().Status()
	return &peerpb.StatusResponse{
		Node: p.server.ownStatus(ctx, st, req.Group), Leader: st.LeaderID, Term: st.Term, Cluster: st.Cluster,
		LowDisk: p.store().LowDisk() != nil, Removals: wireRemovals(p.store().DeadVoters()),
	}, nil
}
