package peertls

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/werbenhu/registry/fsm"
)

func TestParseSecrets(t *testing.T) {
	a, b := NewSecret(), NewSecret()
	short := base64.StdEncoding.EncodeToString(make([]byte, MinSecret-1))
	for _, tc := range []struct {
		name, text string
		want       int    // secrets
		limit      string // of the error
	}{
		{"one", a + "\n", 1, ""},
		{"no line end", a, 1, ""},
		{"two, with spaces and empty lines", " " + a + "\r\n\n" + b + "\n\n", 2, ""},
		{"a longer one", base64.StdEncoding.EncodeToString(make([]byte, 100)), 1, ""},
		{"nothing", "\n", 0, "one or two secrets"},
		{"three", a + "\n" + b + "\n" + NewSecret(), 0, "one or two secrets"},
		{"one twice", a + "\n" + a, 0, "two different secrets"},
		{"31 bytes", short, 0, "at least 32 bytes a secret"},
		{"31 bytes in the second line", a + "\n" + short, 0, "at least 32 bytes a secret"},
		{"a word", "password!", 0, "base64"},
		{"without padding", strings.TrimRight(a, "="), 0, "base64"},
		{"too large", strings.Repeat("\n", maxFile+1) + a, 0, "at most 4096 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseSecrets([]byte(tc.text))
			field, _ := errors.AsType[*fsm.FieldError](err)
			if tc.limit == "" && (err != nil || len(got) != tc.want) {
				t.Errorf("%d secrets, %v", len(got), err)
			}
			if tc.limit != "" && (field == nil || field.Field != "-secret-file" || field.Limit != tc.limit) {
				t.Errorf("got %v, want the limit %q", err, tc.limit)
			}
			if err != nil && strings.Contains(err.Error(), a[:8]) {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func TestNewSecretsDiffer(t *testing.T) {
	a, errA := ParseSecrets([]byte(NewSecret()))
	b, errB := ParseSecrets([]byte(NewSecret()))
	if errA != nil || errB != nil || bytes.Equal(a[0], b[0]) || len(a[0]) != MinSecret {
		t.Errorf("%x, %v and %x, %v", a, errA, b, errB)
	}
}

// A file that others can read or change is refused.
func TestSecretFileMode(t *testing.T) {
	for mode, private := range map[fs.FileMode]bool{
		0o600: true, 0o400: true, 0o640: true, 0o440: true,
		0o604: false, 0o644: false, 0o660: false, 0o602: false, 0o601: false, 0o610: false,
	} {
		path := writeSecrets(t, "", NewSecret())
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := open(t, Config{Cluster: "c", ID: "n1", SecretFile: path})
		if (err == nil) != private {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}

func TestMissingSecretFile(t *testing.T) {
	_, err := open(t, Config{Cluster: "c", ID: "n1", SecretFile: filepath.Join(t.TempDir(), "none")})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "-secret-file") {
		t.Errorf("got %v", err)
	}
}

// FuzzParseSecrets: what is accepted obeys the limits, and says the same when it is
// written as NewSecret writes it.
func FuzzParseSecrets(f *testing.F) {
	for _, seed := range []string{"", "\n", NewSecret(), NewSecret() + "\r\n" + NewSecret() + "\n", "YQ==", strings.Repeat("A", 5000)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		secrets, err := ParseSecrets(data)
		if err != nil {
			if !errors.Is(err, fsm.ErrInvalid) {
				t.Errorf("%T: %v", err, err)
			}
			return
		}
		if len(secrets) < 1 || len(secrets) > MaxSecrets {
			t.Fatalf("%d secrets", len(secrets))
		}
		var lines []string
		for _, s := range secrets {
			if len(s) < MinSecret {
				t.Errorf("a secret of %d bytes", len(s))
			}
			lines = append(lines, base64.StdEncoding.EncodeToString(s))
		}
		again, err := ParseSecrets([]byte(strings.Join(lines, "\n")))
		if err != nil || len(again) != len(secrets) {
			t.Fatalf("%d secrets the second time, %v", len(again), err)
		}
		for i := range again {
			if !bytes.Equal(again[i], secrets[i]) {
				t.Errorf("secret %d differs the second time", i)
			}
		}
	})
}
