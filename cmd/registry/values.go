package main

import (
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"
)

// checkValue says of a value that does not parse what is wanted, which package
// cli does not. label is where the value comes from: a flag or a variable.
func checkValue(f cli.Flag, label, value string) *exitError {
	want := ""
	switch f.(type) {
	case *cli.DurationFlag:
		if _, err := time.ParseDuration(value); err == nil {
			return nil
		}
		if _, err := time.ParseDuration(value + "s"); err == nil {
			return usageErrorf("%s %s: a duration needs a unit, such as %ss", label, value, value)
		}
		want = "a duration such as 10s or 1m30s"
	case *cli.IntFlag:
		if _, err := strconv.ParseInt(value, 0, strconv.IntSize); err != nil {
			want = "a whole number"
		}
	case *cli.Uint64Flag:
		if _, err := strconv.ParseUint(value, 0, 64); err != nil {
			want = "a whole number, 0 or more"
		}
	case *cli.BoolFlag:
		if _, err := strconv.ParseBool(value); err != nil {
			want = "true or false"
		}
	}
	if want == "" {
		return nil
	}
	return usageErrorf("%s is %q, want %s", label, value, want)
}

// checkEnvironment is checkValue for the variables that flags read.
func checkEnvironment(flags []cli.Flag) error {
	var errs []error
	seen := make(map[string]bool)
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		for _, name := range d.GetEnvVars() {
			if value := os.Getenv(name); value != "" && !seen[name] {
				seen[name] = true
				if err := checkValue(f, name, value); err != nil {
					errs = append(errs, err)
				}
			}
		}
	}
	return errors.Join(errs...)
}
