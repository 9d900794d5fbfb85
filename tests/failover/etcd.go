package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/werbenhu/registry/tests/systems"
)

type etcd struct {
	members []*member
	clients []string
	http    *http.Client
}

func newEtcd(binary, dir string) (*etcd, error) {
	addrs, err := systems.FreeAddrs(6)
	if err != nil {
		return nil, err
	}
	e := &etcd{clients: addrs[3:], http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}}
	var initial []string
	for i := range 3 {
		initial = append(initial, fmt.Sprintf("e%d=http://%s", i, addrs[i]))
	}
	for i := range 3 {
		id, peer, client := fmt.Sprint("e", i), "http://"+addrs[i], "http://"+e.clients[i]
		e.members = append(e.members, &member{log: filepath.Join(dir, id+".log"), args: []string{
			binary, "--name", id, "--data-dir", filepath.Join(dir, id), "--log-level", "error", "--initial-cluster", strings.Join(initial, ","),
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--listen-client-urls", client, "--advertise-client-urls", client,
		}})
	}
	return e, nil
}

func (e *etcd) name() string   { return "etcd" }
func (e *etcd) all() []*member { return e.members }

// call asks one member.
func (e *etcd) call(ctx context.Context, i int, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+e.clients[i]+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	return json.Unmarshal(text, out)
}

type etcdStatus struct {
	Header struct {
		ID string `json:"member_id"`
	} `json:"header"`
	Leader string `json:"leader"`
	Index  string `json:"raftAppliedIndex"`
}

func (e *etcd) status(ctx context.Context) (all []etcdStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for i := range e.members {
		var st etcdStatus
		if err := e.call(ctx, i, "/v3/maintenance/status", struct{}{}, &st); err != nil {
			return nil, err
		}
		all = append(all, st)
	}
	return all, nil
}

func (e *etcd) leader(ctx context.Context) (int, error) {
	all, err := e.status(ctx)
	for i, st := range all {
		if st.Leader == st.Header.ID {
			return i, nil
		}
	}
	return 0, errors.Join(err, errors.New("no leader"))
}

func (e *etcd) settled(ctx context.Context) error {
	all, err := e.status(ctx)
	if err != nil {
		return err
	}
	for _, st := range all {
		if st.Leader == "" || st.Leader == "0" || st.Leader != all[0].Leader || st.Index != all[0].Index {
			return fmt.Errorf("%+v", all)
		}
	}
	return nil
}

// write sends puts to all members, again and again, until one is acknowledged.
func (e *etcd) write(ctx context.Context, round int) error {
	ctx, cancel := context.WithCancel(ctx)
	acked := make(chan struct{}, 1)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	put := map[string]string{
		"key":   base64.StdEncoding.EncodeToString([]byte(fmt.Sprint("failover/m", round))),
		"value": base64.StdEncoding.EncodeToString(make([]byte, 100)),
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for i := range e.members {
			all.Go(func() {
				var out struct{}
				if e.call(ctx, i, "/v3/kv/put", put, &out) == nil {
					select {
					case acked <- struct{}{}:
					default:
					}
				}
			})
		}
		select {
		case <-acked:
			return nil
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
