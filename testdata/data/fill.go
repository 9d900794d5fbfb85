//go:build ignore

// Fill fills a node of the release that it is built with: see make.
//
//	fill ADDR DATA-DIR STATE
//
// It writes more than 256 entries, waits for a snapshot in the data directory, writes
// more, and puts into STATE what the node then has, as one line of JSON for each group.
// Then it registers and deregisters members of a group "churn", until the node is killed.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
)

const ttl = 24 * time.Hour

type filler struct {
	ctx    context.Context
	api    registrypb.RegistryClient
	leases map[string]uint64 // by GROUP/ID
}

func main() {
	addr, dir, state := os.Args[1], os.Args[2], os.Args[3]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	must(err)
	f := &filler{ctx: ctx, api: registrypb.NewRegistryClient(conn), leases: map[string]uint64{}}

	f.before()
	log.Print("waits for a snapshot")
	for {
		found, err := filepath.Glob(filepath.Join(dir, "snapshots", "*", "state.bin"))
		must(err)
		if len(found) > 0 && filepath.Ext(filepath.Dir(found[0])) != ".tmp" {
			break
		}
		must(ctx.Err())
		time.Sleep(50 * time.Millisecond)
	}
	f.after()
	f.save(state)
	log.Print("churns")
	for i := 0; ; i++ {
		if i == 50 {
			log.Print("may be killed")
		}
		id := fmt.Sprint("c", i%10)
		req := member("churn", id, i, ttl)
		req.Instance, req.TakeOver = fmt.Append(nil, i), true
		if _, err := f.api.Register(ctx, req); err != nil {
			log.Printf("the node is gone: %v", err)
			return
		}
		if i%3 == 2 {
			_, _ = f.api.Deregister(ctx, &registrypb.DeregisterRequest{Group: "churn", Id: id})
		}
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func member(group, id string, i int, ttl time.Duration) *registrypb.RegisterRequest {
	return &registrypb.RegisterRequest{
		Group: group, Id: id, Addr: fmt.Sprintf("10.0.%d.%d:80", i/250, i%250+1), Weight: uint32(i%3 + 1),
		Meta: map[string]string{"zone": fmt.Sprint("zone-", i%3), "version": "1.4.2"}, Ttl: durationpb.New(ttl), Instance: fmt.Appendf(nil, "instance-%s-%s", group, id),
	}
}

func (f *filler) register(req *registrypb.RegisterRequest) {
	resp, err := f.api.Register(f.ctx, req)
	must(err)
	f.leases[req.Group+"/"+req.Id] = resp.LeaseId
}

func (f *filler) deregister(group, id string) {
	_, err := f.api.Deregister(f.ctx, &registrypb.DeregisterRequest{Group: group, Id: id})
	must(err)
	delete(f.leases, group+"/"+id)
}

func (f *filler) setGroup(group string, nodes, bound uint32) {
	_, err := f.api.SetGroup(f.ctx, &registrypb.SetGroupRequest{Group: group, Config: &registrypb.GroupConfig{VirtualNodes: nodes, Bound: bound}})
	must(err)
}

func (f *filler) update(req *registrypb.UpdateMemberRequest) {
	_, err := f.api.UpdateMember(f.ctx, req)
	must(err)
}

// before is what the snapshot has.
func (f *filler) before() {
	log.Print("writes what the snapshot has")
	f.setGroup("web", 256, 1250)
	for i := range 200 {
		f.register(member("web", fmt.Sprintf("w%03d", i), i, ttl))
	}
	for i := 0; i < 200; i += 4 {
		f.deregister("web", fmt.Sprintf("w%03d", i))
	}
	f.setGroup("deleted", 64, 0)
	for i := range 3 {
		f.register(member("deleted", fmt.Sprint("d", i), i, ttl))
		delete(f.leases, fmt.Sprint("deleted/d", i))
	}
	_, err := f.api.DeleteGroup(f.ctx, &registrypb.DeleteGroupRequest{Group: "deleted", Force: true})
	must(err)
	f.setGroup("empty", 128, 0)
	for i := range 40 {
		f.register(member("cache", fmt.Sprintf("k%02d", i), i, ttl))
	}
}

// after is in the log alone, when the snapshot is the newest one.
func (f *filler) after() {
	log.Print("writes what is in the log")
	for i := range 30 {
		f.register(member("late", fmt.Sprintf("l%02d", i), i, ttl))
	}
	again := member("web", "w001", 1, ttl)
	again.Addr, again.Instance, again.TakeOver = "10.9.9.9:80", []byte("another"), true
	f.register(again)
	f.deregister("cache", "k00")
	f.setGroup("cache", 512, 1100)
	held, draining, weight := registrypb.MemberState_MEMBER_STATE_HELD, registrypb.MemberState_MEMBER_STATE_DRAINING, uint32(7)
	f.update(&registrypb.UpdateMemberRequest{Group: "web", Id: "w002", Weight: &weight})
	f.update(&registrypb.UpdateMemberRequest{Group: "web", Id: "w003", State: &draining})
	f.update(&registrypb.UpdateMemberRequest{Group: "web", Id: "w005", State: &held, Hold: durationpb.New(ttl)})
}

// save writes what the node has.
func (f *filler) save(path string) {
	log.Printf("writes %s", path)
	list, err := f.api.Groups(f.ctx, &registrypb.GroupsRequest{Read: &registrypb.ReadOptions{Linearizable: true}})
	must(err)
	var out []byte
	for _, g := range list.Groups {
		resp, err := f.api.Members(f.ctx, &registrypb.MembersRequest{Group: g.Name, Read: &registrypb.ReadOptions{Linearizable: true}})
		must(err)
		resp.Receipt = &registrypb.Receipt{Revision: resp.Receipt.Revision, Fingerprint: resp.Receipt.Fingerprint}
		leases := map[string]uint64{}
		for _, m := range resp.Members {
			leases[m.Id] = f.leases[g.Name+"/"+m.Id]
		}
		line, err := json.Marshal(map[string]any{"group": g.Name, "members": text(resp), "leases": leases})
		must(err)
		out = append(append(out, line...), '\n')
	}
	must(os.WriteFile(path, out, 0o644))
}

func text(m proto.Message) json.RawMessage {
	data, err := protojson.Marshal(m)
	must(err)
	return data
}
