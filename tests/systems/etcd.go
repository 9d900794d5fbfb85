package systems

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/werbenhu/registry/tests/source"
)

// Etcd is three members of etcd.
type Etcd struct {
	processes
	Endpoints []string
	Clients   []*clientv3.Client // one of each member
}

// BuildEtcd builds the release of the module tests/etcd in the folder dir.
func BuildEtcd(ctx context.Context, dir string) (program string, err error) {
	root, err := source.Dir(ctx)
	if err != nil {
		return "", err
	}
	program = filepath.Join(dir, "etcd")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, "go.etcd.io/etcd/server/v3")
	cmd.Dir = filepath.Join(root, "tests", "etcd")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build etcd: %w\n%s", err, out)
	}
	return program, nil
}

// StartEtcd starts members with default settings, whose data is in folders of dir, and
// returns when each takes writes.
func StartEtcd(ctx context.Context, program, dir string) (_ *Etcd, err error) {
	e := &Etcd{}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	addrs, err := FreeAddrs(2 * Nodes)
	if err != nil {
		return nil, err
	}
	var cluster []string
	for i := range Nodes {
		cluster = append(cluster, fmt.Sprintf("e%d=http://%s", i+1, addrs[i]))
	}
	for i := range Nodes {
		id, peer, public := fmt.Sprintf("e%d", i+1), "http://"+addrs[i], "http://"+addrs[Nodes+i]
		err := e.start(program, "--name="+id, "--data-dir="+filepath.Join(dir, id), "--log-level=error",
			"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer,
			"--listen-client-urls="+public, "--advertise-client-urls="+public,
			"--initial-cluster="+strings.Join(cluster, ","), "--initial-cluster-state=new")
		if err != nil {
			return nil, err
		}
		client, err := DialEtcd(public)
		if err != nil {
			return nil, err
		}
		e.Endpoints, e.Clients = append(e.Endpoints, public), append(e.Clients, client)
	}
	return e, e.until(ctx, func(ctx context.Context) error {
		for _, c := range e.Clients {
			if _, err := c.Put(ctx, "ready", "yes"); err != nil {
				return err
			}
		}
		return nil
	})
}

// DialEtcd opens a client of these members.
func DialEtcd(endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
}

// Leader is the index of the member that leads.
func (e *Etcd) Leader(ctx context.Context) (int, error) {
	for i, endpoint := range e.Endpoints {
		st, err := e.Clients[i].Status(ctx, endpoint)
		if err != nil {
			return 0, err
		}
		if st.Leader == st.Header.MemberId {
			return i, nil
		}
	}
	return 0, errNoLeader
}

// Close ends the clients and kills the members.
func (e *Etcd) Close() {
	for _, c := range e.Clients {
		_ = c.Close() // calls under way fail
	}
	e.close()
}
