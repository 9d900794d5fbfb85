//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/werbenhu/registry/tests/source"
)

// What time.Now begins with, and what it begins with after the change.
const (
	nowHead    = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	nowChanged = nowHead + "\tsec += faultsOffset()\n"
)

// offsetSource is a further file of package time.
const offsetSource = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var faultsMapped *int64

func init() {
	name, ok := syscall.Getenv("` + clockVariable + `")
	if !ok {
		return
	}
	fd, err := syscall.Open(name, syscall.O_RDWR|syscall.O_CREAT|syscall.O_CLOEXEC, 0o644)
	if err == nil {
		err = syscall.Ftruncate(fd, 8)
	}
	var page []byte
	if err == nil {
		page, err = syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	}
	if err != nil {
		panic("map the clock's offset: " + err.Error())
	}
	faultsMapped = (*int64)(unsafe.Pointer(&page[0]))
}

func faultsOffset() int64 {
	if faultsMapped == nil {
		return 0
	}
	return atomic.LoadInt64(faultsMapped)
}
`

// clockOverlay writes what go build's -overlay reads to dir.
func clockOverlay(ctx context.Context, dir string) (string, error) {
	cmd, err := source.Go(ctx, "env", "GOROOT")
	if err != nil {
		return "", err
	}
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	std := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	timeGo, err := os.ReadFile(filepath.Join(std, "time.go"))
	if err != nil {
		return "", err
	}
	if bytes.Count(timeGo, []byte(nowHead)) != 1 {
		return "", errors.New("this version of Go has another time.Now")
	}
	return writeOverlay(dir, map[string][]byte{
		filepath.Join(std, "time.go"):   bytes.Replace(timeGo, []byte(nowHead), []byte(nowChanged), 1),
		filepath.Join(std, "faults.go"): []byte(offsetSource),
	})
}

// writeOverlay writes files that replace others, by their paths, and what go's
// -overlay reads, to dir.
func writeOverlay(dir string, files map[string][]byte) (string, error) {
	replace := make(map[string]string)
	for path, data := range files {
		changed := filepath.Join(dir, fmt.Sprintf("%d-%s", len(replace), filepath.Base(path)))
		if err := os.WriteFile(changed, data, 0o644); err != nil {
			return "", err
		}
		replace[path] = changed
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, data, 0o644)
}
