package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"runtime/pprof"
	"time"

	"github.com/prometheus/common/expfmt"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc/auth"
	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
)

// Limits of a diagnosis.
const (
	maxDiagnosisFile = 8 << 20
	diagnosisChunk   = 64 << 10
	maxCPUProfile    = 10 * time.Second
)

// Diagnosis is what the node's program adds to a diagnosis.
type Diagnosis struct {
	// Settings are the values in force, without secrets; empty: it has none.
	Settings string
	// Log returns the newest lines of the node's log; nil: it has none.
	Log func() []byte
}

// errMissing: the program has no such file.
var errMissing = errors.New("this program has none")

// diagnosisFile is a file of a diagnosis.
type diagnosisFile struct {
	name  string
	write func(ctx context.Context, w io.Writer) error
}

// Diagnose implements the public service. Each file is made in memory, up to a limit, before it
// is sent. A caller that does not read delays the diagnoses of others alone.
func (s *Server) Diagnose(req *registrypb.DiagnoseRequest, stream grpc.ServerStreamingServer[registrypb.DiagnoseResponse]) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(errStopping) })()
	if err := s.mayDiagnose(ctx); err != nil {
		return toStatus(err)
	}
	cpu := req.GetCpu().AsDuration()
	if req.Cpu != nil && (cpu < time.Millisecond || cpu > maxCPUProfile) {
		return toStatus(&fsm.FieldError{Field: "cpu", Limit: "1ms to 10s", Got: cpu.String()})
	}
	if !s.diagnosing.CompareAndSwap(false, true) {
		return toStatus(&fullError{of: "diagnoses", most: 1})
	}
	defer s.diagnosing.Store(false)
	for _, f := range s.diagnosisFiles(cpu) {
		if err := f.send(ctx, stream); err != nil {
			return toStatus(err)
		}
	}
	return nil
}

// mayDiagnose decides what the permission of the method leaves open. Without tokens everybody has
// every right, but files and profiles of the machine are for those who are on it, also while the
// node has not caught up: then a diagnosis may be needed most.
func (s *Server) mayDiagnose(ctx context.Context) error {
	c := callOf(ctx)
	local := fromLoopback(c.from)
	if err := c.settle(); err != nil && !(local && errors.Is(err, store.ErrNotLeader)) {
		return err
	}
	if !s.store.State().TokensOn() && !local {
		return fmt.Errorf("%w: without tokens a node is diagnosed from its own machine only", auth.ErrDenied)
	}
	return nil
}

func fromLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// send makes a file and sends it. What is wrong with the file is sent, too.
func (f diagnosisFile) send(ctx context.Context, stream grpc.ServerStreamingServer[registrypb.DiagnoseResponse]) error {
	var file limitedBuffer
	err := f.write(ctx, &file)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for len(file.data) > diagnosisChunk {
		if err := stream.Send(&registrypb.DiagnoseResponse{Name: f.name, Data: file.data[:diagnosisChunk]}); err != nil {
			return err
		}
		file.data = file.data[diagnosisChunk:]
	}
	last := &registrypb.DiagnoseResponse{Name: f.name, Data: file.data}
	if err != nil {
		last.Error = toUTF8(err.Error())
	}
	return stream.Send(last)
}

// limitedBuffer holds at most maxDiagnosisFile, and then fails.
type limitedBuffer struct{ data []byte }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	n := min(len(p), maxDiagnosisFile-len(b.data))
	if b.data = append(b.data, p[:n]...); n < len(p) {
		return n, fmt.Errorf("cut off at %d bytes", maxDiagnosisFile)
	}
	return n, nil
}

// diagnosisFiles are the files of this node. The profile of the processor is the last, because
// it takes time.
func (s *Server) diagnosisFiles(cpu time.Duration) []diagnosisFile {
	files := []diagnosisFile{
		{"status.json", s.writeStatus},
		{"version.txt", s.writeVersion},
		{"config.yaml", s.writeSettings},
		{"log.txt", s.writeLog},
		{"metrics.txt", s.writeMetrics},
		{"goroutines.txt", profile("goroutine", 1)},
		{"heap.pb.gz", profile("heap", 0)},
	}
	if cpu > 0 {
		files = append(files, diagnosisFile{"cpu.pb.gz", func(ctx context.Context, w io.Writer) error { return profileCPU(ctx, w, cpu) }})
	}
	return files
}

func (s *Server) writeStatus(_ context.Context, w io.Writer) error {
	data, err := protojson.MarshalOptions{Multiline: true, EmitUnpopulated: true}.Marshal(nodeStatus(s.store.Status()))
	if err == nil {
		_, err = w.Write(append(data, '\n'))
	}
	return err
}

func (s *Server) writeVersion(_ context.Context, w io.Writer) error {
	if _, err := fmt.Fprintf(w, "registry %s\n", s.store.Self().Version); err != nil {
		return err
	}
	about, ok := debug.ReadBuildInfo()
	if !ok {
		return errMissing
	}
	_, err := io.WriteString(w, about.String())
	return err
}

func (s *Server) writeSettings(_ context.Context, w io.Writer) error {
	if s.diagnosis.Settings == "" {
		return errMissing
	}
	_, err := io.WriteString(w, s.diagnosis.Settings)
	return err
}

func (s *Server) writeLog(_ context.Context, w io.Writer) error {
	if s.diagnosis.Log == nil {
		return errMissing
	}
	_, err := w.Write(s.diagnosis.Log())
	return err
}

func (s *Server) writeMetrics(_ context.Context, w io.Writer) error {
	if s.gatherer == nil {
		return errMissing
	}
	families, err := s.gatherer.Gather()
	for _, f := range families {
		if _, werr := expfmt.MetricFamilyToText(w, f); werr != nil {
			return errors.Join(err, werr)
		}
	}
	return err
}

func profile(name string, debug int) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error { return pprof.Lookup(name).WriteTo(w, debug) }
}

// profileCPU fails if another profile of the process is under way.
func profileCPU(ctx context.Context, w io.Writer, d time.Duration) error {
	if err := pprof.StartCPUProfile(w); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}
