package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/fsm"
)

// sizeFlag is a flag with a number of bytes, for parseSize.
type sizeFlag struct{ *cli.StringFlag }

// sizeUnits are the suffixes of a size, the longer ones first.
var sizeUnits = []struct {
	suffix string
	bytes  uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}, {"", 1}}

// parseSize reads a number of bytes, with a unit or without.
func parseSize(flag, text string) (uint64, error) {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 64)
		if err != nil || n > math.MaxUint64/u.bytes {
			break
		}
		return n * u.bytes, nil
	}
	return 0, usageErrorf("%w", &fsm.FieldError{Field: "-" + flag, Limit: "a size such as 128MiB or 2GiB, or 0", Got: strconv.Quote(text)})
}

// sizeText is the shortest text that parseSize reads as n.
func sizeText(n uint64) string {
	for i := 3; i >= 0; i-- {
		if u := sizeUnits[i]; n >= u.bytes && n%u.bytes == 0 {
			return fmt.Sprintf("%d%s", n/u.bytes, u.suffix)
		}
	}
	return strconv.FormatUint(n, 10)
}
