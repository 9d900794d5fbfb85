package certs_test

import (
	"strings"
	"testing"
	"time"

	"github.com/werbenhu/registry/rpc/certs"
	"github.com/werbenhu/registry/rpc/certs/certstest"
)

func TestAlarmsOfCertificates(t *testing.T) {
	const day = 24 * time.Hour
	ca := certstest.NewCA(t) // of an hour
	for _, tc := range []struct {
		name     string
		lifetime time.Duration
		at       time.Duration // from now
		want     string        // of the certificate; empty: none
	}{
		{"an hour, at its start", time.Hour, 0, ""},
		{"an hour, nearly three quarters later", time.Hour, 43 * time.Minute, ""},
		{"an hour, over three quarters later", time.Hour, 45 * time.Minute, "expires in 14m0s"},
		{"an hour, after it", time.Hour, time.Hour + time.Minute, "has expired"},
	} {
		files := ca.Issue("a", certs.Request{Server: true, Hosts: []string{"a"}, Lifetime: tc.lifetime})
		files.CA = ""
		s, err := certs.Open(files, nil)
		if err != nil {
			t.Fatal(err)
		}
		alarms := strings.Join(s.Alarms("-cert", "-client-ca", time.Now().Add(tc.at)), "\n")
		if (alarms == "") != (tc.want == "") || !strings.Contains(alarms, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, alarms, tc.want)
		}
	}
	pair, err := certs.NewAuthority("long", 3650*day)
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/ca.crt"
	certstest.Write(t, path, pair.Cert)
	s, err := certs.Open(certs.Files{CA: path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Duration]string{0: "", 3635 * day: "", 3637 * day: "-client-ca " + path + " expires in 12 days", 3649 * day: "expires in 23h59m0s"} {
		alarms := strings.Join(s.Alarms("-cert", "-client-ca", time.Now().Add(at)), "\n")
		if (alarms == "") != (want == "") || !strings.Contains(alarms, want) {
			t.Errorf("after %v: %q, want %q", at, alarms, want)
		}
	}
}
