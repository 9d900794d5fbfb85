package rpc

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A save pauses after each message for as long as the message took, and not long after one
// whose receiver is slow.
func TestSavePausesAfterEachMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := errors.New("the stream has ended")
		send := paced(func(data []byte) error {
			<-time.After(time.Duration(data[0]) * time.Millisecond)
			if data[0] == 100 {
				return failed
			}
			return nil
		})
		for _, tt := range []struct {
			making, sending, pause time.Duration
			err                    error
		}{{2, 1, 3, nil}, {0, 4, 4, nil}, {5, 20, 10, nil}, {1, 100, 10, failed}} {
			<-time.After(tt.making * time.Millisecond)
			began := time.Now()
			if err := send([]byte{byte(tt.sending)}); err != tt.err {
				t.Errorf("%+v: %v", tt, err)
			}
			if took := time.Since(began); took != (tt.sending+tt.pause)*time.Millisecond {
				t.Errorf("%+v: %v", tt, took)
			}
		}
	})
}
