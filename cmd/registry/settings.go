package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry"
	"github.com/werbenhu/registry/fsm"
)

const (
	flagConfig      = "config"
	flagCheckConfig = "check-config"
)

// fromCommandLine is the origin of what the command line gives.
const fromCommandLine = "command line"

// settings are the values in force of all flags of serve. A value is that of the command
// line, else of the environment, else of the configuration file, else the default. An
// empty variable counts as not set.
type settings struct {
	*cli.Context                   // with the values
	origins      map[string]string // by flag: fromCommandLine, a variable, FILE:LINE; none: the default
	wrong        map[string]bool   // by flag: what is wrong was told
	level        *slog.LevelVar    // of the log
	debugAddr    string            // empty: no debug listener
}

// variable is the environment variable of a flag of serve.
func variable(flag string) string {
	return "REGISTRY_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// setVariables replaces the variables of a flag.
func setVariables(f cli.Flag, names ...string) {
	switch f := f.(type) {
	case *cli.StringFlag:
		f.EnvVars = names
	case sizeFlag:
		f.EnvVars = names
	case *cli.StringSliceFlag:
		f.EnvVars = names
	case *cli.BoolFlag:
		f.EnvVars = names
	case *cli.IntFlag:
		f.EnvVars = names
	case *cli.Uint64Flag:
		f.EnvVars = names
	case *cli.DurationFlag:
		f.EnvVars = names
	default:
		panic(fmt.Sprintf("flag of type %T", f))
	}
}

// readSettings adds the file to the command line and the environment, which c has. It
// leaves c as it is, so the file can be read again. With the error come the settings
// without what is wrong, or nil if the file cannot be read at all.
func readSettings(c *cli.Context) (*settings, error) {
	flags := serveFlags()
	path := textOf(c, flagConfig)
	file, fileErr := readConfigFile(path, flags)
	if fileErr != nil && file == nil {
		return nil, fileErr
	}
	set := flag.NewFlagSet(appName, flag.ContinueOnError)
	s := &settings{Context: cli.NewContext(c.App, set, nil), origins: make(map[string]string), wrong: make(map[string]bool)}
	for _, f := range flags {
		name := f.Names()[0]
		inEnvironment := os.Getenv(variable(name)) != ""
		if !inEnvironment {
			setVariables(f)
		}
		err := f.Apply(set)
		if err != nil {
			return nil, usageErrorf("%w", err)
		}
		switch v, inFile := file[name]; {
		case s.onCommandLine(c, name, inEnvironment):
			err = s.set(name, textOf(c, name), fromCommandLine)
		case inEnvironment:
			s.origins[name] = variable(name)
		case inFile:
			s.wrong[name] = v.wrong
			err = s.set(name, v.text, v.origin)
		}
		if err != nil {
			return nil, usageErrorf("-%s: %w", name, err)
		}
	}
	return s, fileErr
}

func (s *settings) set(name, text, origin string) error {
	s.origins[name] = origin
	return s.Set(name, text)
}

// onCommandLine reports whether the command line gives a flag. c has a flag of the environment
// as well; s has it, too, if the variable is not empty.
func (s *settings) onCommandLine(c *cli.Context, name string, inEnvironment bool) bool {
	if !c.IsSet(name) {
		return false
	}
	text := textOf(c, name)
	if inEnvironment {
		return text != textOf(s.Context, name)
	}
	_, empty := os.LookupEnv(variable(name))
	return !empty || text != "" && text != "false"
}

// textOf is a value as the flag takes it.
func textOf(c *cli.Context, name string) string {
	value := c.Value(name)
	if _, isList := value.(cli.StringSlice); isList {
		return strings.Join(list(c, name), ",")
	}
	return fmt.Sprint(value)
}

// locate adds to what is wrong with a value of the environment or the file where it
// comes from, and makes usage errors of all.
func (s *settings) locate(err error) error {
	var errs []error
	for _, e := range flatten(err) {
		if field, ok := errors.AsType[*fsm.FieldError](e); ok {
			name := strings.TrimPrefix(field.Field, "-")
			if s.wrong[name] {
				continue
			}
			if origin := s.origins[name]; origin != "" && origin != fromCommandLine {
				e = fmt.Errorf("%s: %w", origin, e)
			}
		}
		if _, usage := errors.AsType[*exitError](e); !usage {
			e = usageErrorf("%w", e)
		}
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// flatten are the errors that were joined, without the sentinel of the configuration.
func flatten(err error) (errs []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	switch {
	case err == nil || err == registry.ErrConfig:
		return nil
	case !ok:
		return []error{err}
	}
	for _, e := range joined.Unwrap() {
		errs = append(errs, flatten(e)...)
	}
	return errs
}

// isKey reports whether a configuration file may set a flag of serve.
func isKey(flag string) bool { return flag != flagConfig && flag != flagCheckConfig }

// keys are those of a configuration file, in the order of the help.
func keys() (keys []string) {
	for _, f := range serveFlags() {
		if name := f.Names()[0]; isKey(name) {
			keys = append(keys, name)
		}
	}
	return keys
}

// print writes the values in force, and where they come from, as a configuration file.
func (s *settings) print(w io.Writer, cfg registry.Config) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, name := range keys() {
		value := fmt.Sprint(s.Value(name))
		switch v := s.Value(name).(type) {
		case string:
			if name == flagDataDir {
				v = cfg.DataDir // the default has the id
			}
			value = strconv.Quote(v)
		case cli.StringSlice:
			items := list(s.Context, name)
			for i := range items {
				items[i] = strconv.Quote(items[i])
			}
			value = "[" + strings.Join(items, ", ") + "]"
		}
		origin := s.origins[name]
		if origin == "" {
			origin = "default"
		}
		fmt.Fprintf(t, "%s: %s\t# %s\n", name, value, oneLine(origin))
	}
	return t.Flush()
}

// reread reads the configuration file again. The log level changes at once; other
// changes need a restart, which the log says.
func (s *settings) reread(e *env, c *cli.Context, log *slog.Logger) {
	file := s.String(flagConfig)
	if file == "" {
		return
	}
	next, _, err := configure(e, c)
	if err != nil {
		log.Error("configuration file refused, the values in force stay", "file", file, "error", err)
		return
	}
	s.level.Set(next.level.Level())
	log.Info("configuration file read again", "file", file, flagLogLevel, s.level.Level())
	var changed []string
	for _, name := range keys() {
		if name != flagLogLevel && textOf(s.Context, name) != textOf(next.Context, name) {
			changed = append(changed, name)
		}
	}
	if len(changed) > 0 {
		log.Warn("changes in the configuration file need a restart", "file", file, "keys", strings.Join(changed, ","))
	}
}
