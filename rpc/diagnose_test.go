package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/store"
	"github.com/werbenhu/registry/store/storetest"
)

// diagnosisStream is what Diagnose sends, to a caller at an address.
type diagnosisStream struct {
	grpc.ServerStream
	ctx  context.Context
	sent func(*registrypb.DiagnoseResponse)
}

func (s *diagnosisStream) Context() context.Context { return s.ctx }

func (s *diagnosisStream) Send(m *registrypb.DiagnoseResponse) error {
	if s.sent != nil {
		s.sent(m)
	}
	return nil
}

// diagnose calls a server as a client at an address does.
func diagnose(t *testing.T, s *Server, from, token string, req *registrypb.DiagnoseRequest, sent func(*registrypb.DiagnoseResponse)) error {
	t.Helper()
	return diagnoseLater(t, s, from, token, req, sent, func() {})
}

// diagnoseLater calls later between the decision about the call and its handler.
func diagnoseLater(t *testing.T, s *Server, from, token string, req *registrypb.DiagnoseRequest, sent func(*registrypb.DiagnoseResponse), later func()) error {
	t.Helper()
	a := s.authorizer(clientPort)
	ctx := presenting(t.Context(), token)
	c := a.call(ctx, registrypb.Cluster_Diagnose_FullMethodName)
	c.from = &net.TCPAddr{IP: net.ParseIP(from), Port: 1}
	if err := c.authorize(req); err != nil {
		return toStatus(err)
	}
	later()
	return s.Diagnose(req, &diagnosisStream{ctx: context.WithValue(ctx, callKey{}, c), sent: sent})
}

// Without tokens a stranger reads neither profiles nor settings. With them the right admin
// decides, wherever its caller is.
func TestWhoDiagnosesANode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testWhoDiagnoses)
}

func testWhoDiagnoses(t *testing.T) {
	c := storetest.New(t)
	s := serverOf(t, c.Start("n1", store.Formation{}))
	c.AwaitReady(c.Node("n1"))
	none := &registrypb.DiagnoseRequest{}
	want := func(code codes.Code, err error) {
		t.Helper()
		if status.Code(err) != code {
			t.Errorf("%v, want %v", err, code)
		}
	}
	want(codes.PermissionDenied, diagnose(t, s, "10.0.0.1", "", none, nil))
	want(codes.OK, diagnose(t, s, "127.0.0.1", "", none, nil))
	want(codes.OK, diagnose(t, s, "::1", "", none, nil))
	admin, _ := makeToken(c, "admin", true, every)
	want(codes.Unauthenticated, diagnose(t, s, "127.0.0.1", "", none, nil))
	want(codes.OK, diagnose(t, s, "10.0.0.1", admin, none, nil))
	for _, cpu := range []time.Duration{0, time.Microsecond, -time.Second, maxCPUProfile + 1} {
		want(codes.InvalidArgument, diagnose(t, s, "127.0.0.1", admin, &registrypb.DiagnoseRequest{Cpu: durationpb.New(cpu)}, nil))
	}

	files := map[string]string{}
	want(codes.OK, diagnose(t, s, "127.0.0.1", admin, none, func(m *registrypb.DiagnoseResponse) {
		files[m.Name] = m.Error
		err := diagnose(t, s, "127.0.0.1", admin, none, nil) // while one is under way
		if want(codes.Unavailable, err); reasonOf(err) != registrypb.ErrorDetail_BUSY {
			t.Error(err)
		}
	}))
	if len(files) != 7 || files["status.json"] != "" || files["config.yaml"] != errMissing.Error() || files["metrics.txt"] != errMissing.Error() {
		t.Errorf("%q", files)
	}
}

// A node that has not caught up does not know whether tokens are on: it is diagnosed from its own
// machine alone. When it learns of tokens before the work begins, they decide.
func TestWhoDiagnosesANodeThatHasNotCaughtUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := storetest.New(t)
		c.Three()
		down := "n3"
		if c.Leader().ID == down {
			down = "n1"
		}
		c.Node(down).Kill()
		admin, _ := makeToken(c, "admin", true, every)
		killAll := func() {
			for _, n := range c.Nodes() {
				n.Kill()
			}
		}
		killAll()
		none := &registrypb.DiagnoseRequest{}
		for _, tc := range []struct {
			from, token   string
			before, after codes.Code
		}{
			{"10.0.0.1", "", codes.Unavailable, codes.Unauthenticated},
			{"127.0.0.1", "", codes.OK, codes.Unauthenticated},
			{"10.0.0.1", admin, codes.Unavailable, codes.OK},
		} {
			s := serverOf(t, c.Open(down))
			if err := diagnose(t, s, tc.from, tc.token, none, nil); status.Code(err) != tc.before {
				t.Errorf("from %s with token %q: %v, want %v", tc.from, tc.token, err, tc.before)
			}
			err := diagnoseLater(t, s, tc.from, tc.token, none, nil, func() {
				for _, id := range []string{"n1", "n2", "n3"} {
					if id != down {
						c.Open(id)
					}
				}
				c.AwaitReady(c.Node(down))
			})
			if status.Code(err) != tc.after {
				t.Errorf("from %s with token %q, when it has caught up: %v, want %v", tc.from, tc.token, err, tc.after)
			}
			killAll() // alone, it applies nothing of its log
		}
	})
}

// A file is sent in pieces. A diagnosis ends with its node.
func TestDiagnosisIsSentInPieces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testPieces)
}

func testPieces(t *testing.T) {
	c := storetest.New(t)
	c.Together(1)
	s := serverOf(t, c.Leader())
	want := bytes.Repeat([]byte("line\n"), diagnosisChunk)
	s.diagnosis.Log = func() []byte { return want }
	var got []byte
	pieces := 0
	err := diagnose(t, s, "127.0.0.1", "", &registrypb.DiagnoseRequest{}, func(m *registrypb.DiagnoseResponse) {
		if len(m.Data) > diagnosisChunk {
			t.Errorf("%s: a message of %d bytes", m.Name, len(m.Data))
		}
		if m.Name == "log.txt" {
			got = append(got, m.Data...)
			pieces++
		}
	})
	if err != nil || !bytes.Equal(got, want) || pieces != 5 {
		t.Errorf("%v, %d bytes in %d pieces", err, len(got), pieces)
	}
	sent := 0
	err = diagnose(t, s, "127.0.0.1", "", &registrypb.DiagnoseRequest{}, func(*registrypb.DiagnoseResponse) {
		sent++
		s.cancel()
		synctest.Wait() // until the call knows
	})
	if status.Code(err) != codes.Unavailable || sent != 1 {
		t.Errorf("while the node stops: %v, %d messages", err, sent)
	}
}

// What is wrong with a file is told, whatever its text, and a profile ends with its call.
func TestDiagnosisFileThatFails(t *testing.T) {
	file := diagnosisFile{"log.txt", func(_ context.Context, w io.Writer) error {
		_, _ = io.WriteString(w, "some")
		return errors.New("read \xff")
	}}
	var got *registrypb.DiagnoseResponse
	if err := file.send(t.Context(), &diagnosisStream{sent: func(m *registrypb.DiagnoseResponse) { got = m }}); err != nil || got.Name != "log.txt" || string(got.Data) != "some" || !strings.HasPrefix(got.Error, "read ") || !utf8.ValidString(got.Error) {
		t.Errorf("%v, %q", err, got)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	_ = profileCPU(ended, io.Discard, maxCPUProfile) // fails while another test has a profile
	if took := time.Since(began); took > maxCPUProfile/2 {
		t.Errorf("a profile went on for %v", took)
	}
}

func TestDiagnosisFilesAreBounded(t *testing.T) {
	var b limitedBuffer
	line := make([]byte, 1<<20)
	for range maxDiagnosisFile / len(line) {
		if _, err := b.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := b.Write(line[:1]); n != 0 || err == nil || len(b.data) != maxDiagnosisFile {
		t.Errorf("%d, %v, %d bytes", n, err, len(b.data))
	}
}
