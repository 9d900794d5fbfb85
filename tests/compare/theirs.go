package main

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/werbenhu/registry/tests/systems"
)

const theirs = "etcd"

// etcd is three members.
type etcd struct {
	*systems.Etcd
	leases []clientv3.LeaseID
}

func startEtcd(ctx context.Context, program, dir string) (system, error) {
	members, err := systems.StartEtcd(ctx, program, dir)
	if err != nil {
		return nil, err
	}
	return &etcd{Etcd: members}, nil
}

func (e *etcd) leader(ctx context.Context) (int, error) { return e.Leader(ctx) }

// value is 100 bytes long.
var value = strings.Repeat("v", 100)

func (e *etcd) prepare(ctx context.Context) error {
	e.leases = make([]clientv3.LeaseID, leases)
	return together(ctx, groups*members, func(i int) error {
		client := e.Clients[i%systems.Nodes]
		if i >= leases {
			_, err := client.Put(ctx, groupOf(i)+"/"+memberOf(i), value)
			return err
		}
		lease, err := client.Grant(ctx, 3600)
		if err != nil {
			return err
		}
		e.leases[i] = lease.ID
		_, err = client.Put(ctx, groupOf(i)+"/"+memberOf(i), value, clientv3.WithLease(lease.ID))
		return err
	})
}

func (e *etcd) calls(l load, leader int) (calls []call, closeAll func(), err error) {
	var clients []*clientv3.Client
	closeAll = func() {
		for _, c := range clients {
			_ = c.Close() // no call is under way
		}
	}
	dial := func(endpoints ...string) error {
		client, err := systems.DialEtcd(endpoints...)
		if err == nil {
			clients = append(clients, client)
		}
		return err
	}
	if l.place == oneClient {
		err = dial(e.Endpoints...)
	} else {
		for range l.connections() {
			for _, node := range l.nodes(leader, systems.Nodes) {
				if err == nil {
					err = dial(e.Endpoints[node])
				}
			}
		}
	}
	if err != nil {
		closeAll()
		return nil, nil, err
	}
	for i := range l.callers {
		calls = append(calls, e.caller(l, i, clients[i%len(clients)]))
	}
	return calls, closeAll, nil
}

// caller's get names a member: etcd has no match.
func (e *etcd) caller(l load, i int, client *clientv3.Client) call {
	n := i * 1_000_003
	switch {
	case l.kind == register && l.batch > 0:
		return func(ctx context.Context) (int, error) {
			puts := make([]clientv3.Op, l.batch)
			for i := range puts {
				at := int(serial.Add(1))
				puts[i] = clientv3.OpPut(newGroup(at)+"/"+memberOf(at), value)
			}
			_, err := client.Txn(ctx).Then(puts...).Commit()
			return l.batch, err
		}
	case l.kind == register:
		return func(ctx context.Context) (int, error) {
			at := int(serial.Add(1))
			_, err := client.Put(ctx, newGroup(at)+"/"+memberOf(at), value)
			return 1, err
		}
	case l.kind == heartbeat && l.batch > 0:
		var stream etcdserverpb.Lease_LeaseKeepAliveClient
		return func(ctx context.Context) (_ int, err error) {
			if stream == nil { // as that of the client, which sends a message for each lease
				if stream, err = etcdserverpb.NewLeaseClient(client.ActiveConnection()).LeaseKeepAlive(ctx); err != nil {
					return 0, err
				}
			}
			for range l.batch {
				n++
				if err := stream.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: int64(e.leases[n%leases])}); err != nil {
					return 0, err
				}
			}
			for range l.batch {
				resp, err := stream.Recv()
				if err == nil && resp.TTL <= 0 {
					err = fmt.Errorf("lease %x lost", resp.ID)
				}
				if err != nil {
					return 0, err
				}
			}
			return l.batch, nil
		}
	case l.kind == heartbeat:
		return func(ctx context.Context) (int, error) {
			n++
			_, err := client.KeepAliveOnce(ctx, e.leases[n%leases])
			return 1, err
		}
	case l.batch > 0:
		return func(ctx context.Context) (int, error) {
			gets := make([]clientv3.Op, l.batch)
			for k := range gets {
				n++
				at := n % (groups * members)
				gets[k] = clientv3.OpGet(groupOf(at)+"/"+memberOf(at), clientv3.WithSerializable())
			}
			_, err := client.Txn(ctx).Then(gets...).Commit()
			return l.batch, err
		}
	}
	var options []clientv3.OpOption
	if l.kind == match {
		options = append(options, clientv3.WithSerializable())
	}
	return func(ctx context.Context) (int, error) {
		n++
		at := n % (groups * members)
		_, err := client.Get(ctx, groupOf(at)+"/"+memberOf(at), options...)
		return 1, err
	}
}
