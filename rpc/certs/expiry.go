package certs

import (
	"crypto/x509"
	"fmt"
	"time"
)

// maxNotice is how long before its end a certificate is told of, unless a quarter of its
// life is less: one that is made anew each day is not told of all the time.
const maxNotice = 14 * 24 * time.Hour

// Alarms tell which certificates of the last usable set have expired or do so soon. They
// name the flags of the files.
func (s *Source) Alarms(certFlag, caFlag string, now time.Time) (alarms []string) {
	add := func(flag, path string, c *x509.Certificate) {
		left := c.NotAfter.Sub(now)
		if left > min(maxNotice, c.NotAfter.Sub(c.NotBefore)/4) {
			return
		}
		what := fmt.Sprintf("expires in %s", days(left))
		if left <= 0 {
			what = "has expired"
		}
		alarms = append(alarms, fmt.Sprintf("%s %s %s, at %s: put a new one in its place", flag, path, what, c.NotAfter.UTC().Format(time.RFC3339)))
	}
	set := s.Set()
	if set.Certificate != nil {
		add(certFlag, s.files.Cert, set.Certificate.Leaf)
	}
	for _, c := range set.authorities {
		add(caFlag, s.files.CA, c)
	}
	return alarms
}

// days is a time in days, or less than two of them as a duration.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d < 2*day {
		return d.Truncate(time.Minute).String()
	}
	return fmt.Sprintf("%d days", d/day)
}
