package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
	"github.com/werbenhu/registry/store/raftlog"
)

const (
	flagCPU = "cpu"
	// maxBundleCPU is the nodes' own limit.
	maxBundleCPU = 10 * time.Second
	// maxBundleFile and maxBundleFiles bound what one node may send; its own limits are lower.
	maxBundleFile  = 16 << 20
	maxBundleFiles = 32
	bundleDir      = "registry-bundle/"
)

func debugBundleCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "bundle",
		Usage:     "collect what a report of a defect needs from every node, in one tar.gz",
		ArgsUsage: "FILE",
		Description: "Of each node: status, version, the settings in force, the newest log lines, metrics,\n" +
			"goroutines, and profiles of heap and processor. manifest.json says what is missing and\n" +
			"why. No secret is in it, but names, addresses and log lines are: FILE is for its owner\n" +
			"alone. Needs the right admin; without tokens, a node is asked on its own machine only.\n" +
			"Each node gets -timeout, and the time of its profile. Fails if no node answers.",
		Flags: clientFlags(&cli.DurationFlag{Name: flagCPU, Usage: "how long to profile each node's processor, 0 to 10s; 0: not", Value: 2 * time.Second}, jsonFlag()),
		Action: func(c *cli.Context) error {
			args, err := positional(c, "FILE")
			if err != nil {
				return err
			}
			return debugBundle(e, c, args[0])
		},
	}
}

// bundleManifest is what manifest.json says.
type bundleManifest struct {
	Made      time.Time    `json:"made"`
	Program   string       `json:"program"` // that made it
	Cluster   string       `json:"cluster"` // empty: no node told the status
	ClusterID string       `json:"cluster_id"`
	Error     string       `json:"error"` // why there is no status of the cluster
	Nodes     []bundleNode `json:"nodes"`
}

type bundleNode struct {
	ID      string          `json:"id"` // empty: it is not known
	Addr    string          `json:"addr"`
	Dir     string          `json:"dir"`
	Files   []string        `json:"files"`
	Missing []bundleMissing `json:"missing"` // or not whole
	Error   string          `json:"error"`   // why files of the node are missing

	err error
}

type bundleMissing struct {
	File  string `json:"file"`
	Error string `json:"error"`
}

func debugBundle(e *env, c *cli.Context, path string) error {
	if d := c.Duration(flagCPU); d < 0 || d > maxBundleCPU || d > 0 && d < time.Millisecond {
		return usageErrorf("-%s is %v, want 0, or 1ms to %v", flagCPU, d, maxBundleCPU)
	}
	if err := regular(path); err != nil {
		return err
	}
	l, err := dialLink(c)
	if err != nil {
		return err
	}
	defer l.Close()
	b := &bundle{c: c, l: l, manifest: bundleManifest{Made: time.Now().UTC(), Program: buildVersion()}}
	err = raftlog.ReplaceFile(path, func(f *os.File) error { return b.write(c.Context, f) })
	if err != nil {
		return err
	}
	return b.print(e, path)
}

// bundle is one that is made.
type bundle struct {
	c        *cli.Context
	l        *link
	out      *tar.Writer
	manifest bundleManifest
	seen     sdk.Status
}

// write asks all nodes. The error is that of the writer, of ctx, or that no node has sent
// anything.
func (b *bundle) write(ctx context.Context, w io.Writer) error {
	zip := gzip.NewWriter(w)
	b.out = tar.NewWriter(zip)
	nodes, err := b.status()
	if err != nil {
		return err
	}
	ctx, err = forCluster(ctx, b.c.String(flagCluster))
	if err == nil {
		ctx, err = authorized(ctx, b.c.String(flagTokenFile))
	}
	if err != nil {
		return err
	}
	var none error
	some := false
	for _, n := range nodes {
		if err := b.node(ctx, &n); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		some = some || len(n.Files) > 0
		if none == nil {
			none = n.err
		}
		b.manifest.Nodes = append(b.manifest.Nodes, n)
	}
	if !some {
		return none
	}
	return errors.Join(b.addJSON("status.json", toStatusJSON(b.seen)), b.addJSON("manifest.json", b.manifest), b.out.Close(), zip.Close())
}

// status returns the nodes of the cluster; where no node tells, those that were named.
func (b *bundle) status() (nodes []bundleNode, err error) {
	var status sdk.Status
	err = b.l.ask(b.c, func(ctx context.Context) (err error) {
		status, err = b.l.Status(ctx, "")
		return err
	})
	if stopped := b.c.Context.Err(); stopped != nil {
		return nil, stopped
	}
	if exitCode(err) == exitDenied {
		return nil, err
	}
	if err != nil {
		b.manifest.Error = plain(err)
		for _, addr := range list(b.c, flagRegistries) {
			nodes = append(nodes, bundleNode{Addr: addr, err: err})
		}
	}
	b.manifest.Cluster, b.manifest.ClusterID, b.seen = status.Cluster, status.ClusterID, status
	for _, n := range status.Nodes {
		nodes = append(nodes, bundleNode{ID: n.ID, Addr: n.Addr})
	}
	for i, n := range nodes {
		nodes[i].Dir = "node-" + url.PathEscape(cmp.Or(n.ID, n.Addr)) // never a path of its own
		nodes[i].Files, nodes[i].Missing = []string{}, []bundleMissing{}
	}
	return nodes, nil
}

// node adds the files of a node. The error is that of the writer.
func (b *bundle) node(ctx context.Context, n *bundleNode) error {
	cpu := b.c.Duration(flagCPU)
	ctx, cancel := context.WithTimeout(ctx, b.c.Duration(flagTimeout)+cpu)
	defer cancel()
	err := func() error {
		conn, err := dialDirect(n.Addr, b.l.reach)
		if err != nil {
			return err
		}
		defer conn.Close()
		req := &registrypb.DiagnoseRequest{}
		if cpu > 0 {
			req.Cpu = durationpb.New(cpu)
		}
		stream, err := registrypb.NewClusterClient(conn).Diagnose(ctx, req)
		if err != nil {
			return b.l.reach.callError(n.Addr, err)
		}
		return b.receive(n, func() (*registrypb.DiagnoseResponse, error) {
			m, err := stream.Recv()
			if err != nil && err != io.EOF {
				err = b.l.reach.callError(n.Addr, err)
			}
			return m, err
		})
	}()
	if _, own := errors.AsType[*bundleError](err); own {
		return err
	}
	if err != nil {
		if n.err == nil {
			n.err = err
		}
		n.Error = plain(err)
		if call, ok := errors.AsType[callError](err); ok && call.as.Code == codes.Unimplemented {
			n.Error = "its version has no diagnosis"
		}
	}
	return nil
}

// bundleError is an error of the file that is written.
type bundleError struct{ err error }

func (e *bundleError) Error() string { return e.err.Error() }
func (e *bundleError) Unwrap() error { return e.err }

var bundleName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`)

// receive adds what a node sends. A file that is not whole when the stream breaks is added, too.
func (b *bundle) receive(n *bundleNode, next func() (*registrypb.DiagnoseResponse, error)) error {
	var name string
	var data bytes.Buffer
	flush := func() error {
		if name == "" {
			return nil
		}
		n.Files = append(n.Files, name)
		return b.add(n.Dir+"/"+name, data.Bytes())
	}
	for {
		m, err := next()
		if err == io.EOF {
			return flush()
		}
		if err != nil {
			if name != "" {
				n.Missing = append(n.Missing, bundleMissing{name, "it may not be whole: the node's answer ended"})
			}
			return errors.Join(flush(), err)
		}
		if m.GetName() != name {
			if err := flush(); err != nil {
				return err
			}
			name = ""
			data.Reset()
			if !bundleName.MatchString(m.GetName()) || len(n.Files) == maxBundleFiles {
				return fmt.Errorf("%s sends a file that nobody expects: %.64q", n.Addr, m.GetName())
			}
			name = m.GetName()
		}
		if data.Len()+len(m.GetData()) > maxBundleFile {
			return errors.Join(flush(), fmt.Errorf("%s sends more than %d bytes of %s", n.Addr, maxBundleFile, name))
		}
		data.Write(m.GetData())
		if m.GetError() != "" {
			n.Missing = append(n.Missing, bundleMissing{name, m.GetError()})
			if data.Len() == 0 {
				name = ""
			}
		}
	}
}

func (b *bundle) addJSON(name string, v any) error {
	var data bytes.Buffer
	if err := writeJSON(&data, v); err != nil {
		return err
	}
	return b.add(name, data.Bytes())
}

func (b *bundle) add(name string, data []byte) error {
	err := b.out.WriteHeader(&tar.Header{Name: bundleDir + name, Mode: 0o600, Size: int64(len(data)), ModTime: b.manifest.Made, Format: tar.FormatPAX})
	if err == nil {
		_, err = b.out.Write(data)
	}
	if err != nil {
		return &bundleError{err}
	}
	return nil
}

// print says what is in the file, and what is not.
func (b *bundle) print(e *env, path string) error {
	if b.c.Bool(flagJSON) {
		return writeJSON(e.stdout, b.manifest)
	}
	whole := 0
	for _, n := range b.manifest.Nodes {
		if n.Error != "" {
			fmt.Fprintf(e.stderr, "%s is missing: %s\n", cmp.Or(n.ID, n.Addr), oneLine(n.Error))
		} else {
			whole++
		}
		for _, f := range n.Missing {
			fmt.Fprintf(e.stderr, "%s: %s: %s\n", cmp.Or(n.ID, n.Addr), f.File, oneLine(f.Error))
		}
	}
	_, err := fmt.Fprintf(e.stderr, "wrote %s: %d of %s\n", path, whole, count(len(b.manifest.Nodes), "node", "nodes"))
	return err
}
