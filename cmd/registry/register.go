package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/fsm/fsmpb"
	"github.com/werbenhu/registry/ring"
	"github.com/werbenhu/registry/sdk"
)

const flagHoldOnExit = "hold-on-exit"

// Limits of a hold, the cluster's: here they are known before a service is at its end.
const (
	minHold = time.Second
	maxHold = 24 * time.Hour
)

func registerCommand(e *env) *cli.Command {
	flags := clientFlags(
		&cli.StringFlag{Name: flagGroup, Usage: "the group that the service belongs to"},
		&cli.StringFlag{Name: flagID, Usage: "the service's id, unique in its group: keys follow the id, not the address"},
		&cli.StringFlag{Name: flagAddr, Usage: "host:port where the service is reached"},
		&cli.DurationFlag{Name: "ttl", Usage: "how long it stays registered without a heartbeat, 1s–24h", Value: 10 * time.Second},
		&cli.IntFlag{Name: flagWeight, Usage: "1–1000: a service of weight 2 owns twice the keys of one of weight 1", Value: 1},
		&cli.StringSliceFlag{Name: "meta", Usage: "metadata `KEY=VALUE`, repeatable"},
		&cli.DurationFlag{Name: flagHoldOnExit, Usage: "hold the member for so long after the end, for a restart: 1s–24h, or the ttl if that is longer"},
		&cli.BoolFlag{Name: "take-over", Usage: "take the id over from a live process at another address"},
		&cli.BoolFlag{Name: flagJSON, Usage: "print what becomes of the registration as lines of JSON"},
	)
	return &cli.Command{
		Name:      "register",
		Usage:     "register a service and keep it registered until stopped",
		ArgsUsage: memberArgs + " -addr ADDR [-- CMD ARGS…]",
		Category:  categoryService,
		Description: "Stays in the foreground, sends heartbeats, and deregisters on SIGINT, SIGTERM or\n" +
			"SIGHUP. With a command it runs it, passes signals on to it, deregisters when it\n" +
			"ends and exits with its status. If another process takes the id, the command gets\n" +
			"SIGTERM, 10s later its whole process group SIGKILL, and the exit code is 4. When\n" +
			"registry has ended the command, it ends the rest of its process group. (On a\n" +
			"terminal the group is the terminal's, and only the command itself is ended.) On\n" +
			"Linux the command gets SIGTERM when registry is killed. As process 1 of a\n" +
			"container registry reaps orphans. The command gets the environment of registry,\n" +
			"but for " + tokenVariable + ".\n\n" +
			"With -hold-on-exit the member is held instead of deregistered, before a signal is\n" +
			"passed on: it keeps its keys for that time, and requests go to their fallbacks,\n" +
			"until the id is registered again, at any address.\n\n" +
			"With -json each event is one line on stdout, or on stderr if there is a command:\n" +
			"registered, unreachable, renewed, lost, reregistered, held, hold_failed,\n" +
			"deregistering, deregistered, deregister_failed, or ended, with the reason.",
		Flags:  append(flags, logFlags("warn")...),
		Action: func(c *cli.Context) error { return register(e, c) },
	}
}

func register(e *env, c *cli.Context) error {
	if err := require(c, flagGroup, flagID, flagAddr); err != nil {
		return err
	}
	service, err := serviceOf(c)
	if err != nil {
		return err
	}
	command, err := newChild(e, c.Args().Slice())
	if err != nil {
		return err
	}
	logger, _, err := newLogger(c, e.stderr)
	if err != nil {
		return err
	}
	client, err := dialLink(c, sdk.WithLogger(slog.New(withoutEvents{logger.Handler()})))
	if err != nil {
		return err
	}
	defer client.Close()
	reporter := newRegistrationReporter(e, c, service, command)
	service.OnEvent = reporter.onEvent
	return stayRegistered(e, c, client, service, command, reporter)
}

// stayRegistered registers, waits for the end of the context, of the command or
// of the registration, and deregisters.
func stayRegistered(e *env, c *cli.Context, client *link, s sdk.Service, command *child, reporter *registrationReporter) error {
	until, stop := untilHangup(c.Context)
	defer stop()
	ctx, cancel := context.WithTimeout(until, c.Duration(flagTimeout))
	defer cancel()
	said := client.reach.sayAfter(time.Second, e.stderr, c.Duration(flagTimeout))
	reg, err := client.Register(ctx, s)
	said()
	if errors.Is(err, sdk.ErrConflict) {
		held := &exitError{code: exitConflict, err: err}
		return held.withHint("-take-over takes the id over from it")
	}
	if err != nil {
		if err = client.reach.explain(err); until.Err() == nil {
			err = client.diagnosed(c, err)
		}
		return err
	}
	own := &ownRegistration{reg: reg, client: client, reporter: reporter, hold: c.Duration(flagHoldOnExit)}
	reporter.report(eventRegistered, 0, nil)
	if command != nil {
		stop() // SIGHUP is the command's now
		command.stopping = own.tryHold
		err = command.run(c.Context, reg.Done())
	} else {
		select {
		case <-until.Done():
		case <-reg.Done():
		}
	}
	return own.leave(err)
}

// Bounds of the end: a command that is to end waits for the hold, and a cluster
// that cannot be reached is given up after gonePatience.
const (
	holdTimeout  = 3 * time.Second
	closeTimeout = 5 * time.Second
	gonePatience = time.Second
)

// ownRegistration is what this process registered.
type ownRegistration struct {
	reg      *sdk.Registration
	client   *link
	reporter *registrationReporter
	hold     time.Duration // 0: deregister at the end

	leaving    time.Time // when the end began
	holdFailed bool      // and it was said
}

// bounded is the time for a call at the end. A node may be back that refused a
// moment ago, so refusals count only after gonePatience.
func (s *ownRegistration) bounded(d time.Duration) (context.Context, context.CancelFunc) {
	if s.leaving.IsZero() {
		s.leaving = time.Now()
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	ctx, stop := s.client.reach.untilRefused(ctx, s.leaving.Add(gonePatience))
	return ctx, func() { stop(); cancel() }
}

// tryHold holds the member if that was asked for, and returns whether it is held.
func (s *ownRegistration) tryHold() bool {
	if s.hold == 0 {
		return false
	}
	if errors.Is(s.reg.Err(), sdk.ErrHeld) {
		return true
	}
	ctx, cancel := s.bounded(holdTimeout)
	defer cancel()
	if err := shortened(ctx, s.reg.Hold(ctx, s.hold)); err != nil {
		if !s.holdFailed { // the second try, after the command's end, has the same reason
			s.reporter.report(eventHoldFailed, 0, err)
		}
		s.holdFailed = true
		return false
	}
	s.reporter.report(eventHeld, max(s.hold, s.reg.Service().TTL), nil)
	return true
}

// leave holds the member or deregisters it; err is what became of the command.
func (s *ownRegistration) leave(err error) error {
	if lost := registrationLost(s.reg); lost != nil {
		return &exitError{code: exitConflict, err: fmt.Errorf("%s lost its registration: %w", s.reporter.name(), lost)}
	}
	if s.tryHold() {
		return err
	}
	s.reporter.report(eventDeregistering, 0, nil)
	ctx, cancel := s.bounded(closeTimeout)
	defer cancel()
	if cerr := shortened(ctx, s.reg.CloseContext(ctx)); cerr != nil {
		return s.failed(err, cerr)
	}
	if s.reg.Removed() {
		s.reporter.report(eventDeregistered, 0, nil)
		return err
	}
	switch hold, herr := s.stillHeld(ctx); {
	case herr != nil:
		return s.failed(err, fmt.Errorf("it may be held: %w", shortened(ctx, herr)))
	case hold > 0:
		s.reporter.report(eventHeld, hold, nil)
	default: // its lease had expired
		s.reporter.report(eventDeregistered, 0, nil)
	}
	return err
}

// failed tells why the member was not seen to go, and returns err, or else the exit
// code of why.
func (s *ownRegistration) failed(err, why error) error {
	s.reporter.report(eventDeregisterFailed, 0, why)
	if err == nil {
		err = &exitError{code: exitCode(why)}
	}
	return err
}

// stillHeld returns for how long the member is held, by an operator; 0 if it is not.
func (s *ownRegistration) stillHeld(ctx context.Context) (time.Duration, error) {
	service := s.reg.Service()
	members, err := s.client.Members(ctx, service.Group)
	if err != nil && !errors.Is(err, sdk.ErrUnknownGroup) {
		return 0, err
	}
	for _, m := range members {
		if m.ID == service.ID && m.Hold > 0 {
			return max(m.Hold, m.TTL), nil
		}
	}
	return 0, nil
}

// registrationLost returns why the registration ended by itself, if it did.
func registrationLost(reg *sdk.Registration) error {
	if err := reg.Err(); !errors.Is(err, sdk.ErrHeld) {
		return err
	}
	return nil
}

func serviceOf(c *cli.Context) (sdk.Service, error) {
	meta, err := parseMeta(c.StringSlice("meta"))
	if err != nil {
		return sdk.Service{}, err
	}
	if w := c.Int(flagWeight); w < ring.MinWeight || w > ring.MaxWeight {
		return sdk.Service{}, usageErrorf("-weight is %d, want 1 to 1000", w)
	}
	if ttl := c.Duration("ttl"); ttl < fsm.MinTTL || ttl > fsm.MaxTTL {
		return sdk.Service{}, usageErrorf("-ttl is %v, want 1s to 24h", ttl)
	}
	if hold := c.Duration(flagHoldOnExit); c.IsSet(flagHoldOnExit) && (hold < minHold || hold > maxHold) {
		return sdk.Service{}, usageErrorf("-%s is %v, want 1s to 24h", flagHoldOnExit, hold)
	}
	s := sdk.Service{
		Group: c.String(flagGroup), ID: c.String(flagID), Addr: c.String(flagAddr),
		Weight: c.Int(flagWeight), Meta: meta, TTL: c.Duration("ttl"), TakeOver: c.Bool("take-over"),
	}
	return s, checkService(s)
}

// checkService refuses what a node would refuse, before one is looked for.
func checkService(s sdk.Service) error {
	r := &fsmpb.Register{
		Group: s.Group, Id: s.ID, Addr: s.Addr, Weight: uint32(s.Weight), TtlMs: s.TTL.Milliseconds(), Instance: []byte{0},
	}
	for _, key := range slices.Sorted(maps.Keys(s.Meta)) {
		r.Meta = append(r.Meta, &fsmpb.Pair{Key: key, Value: s.Meta[key]})
	}
	err := fsm.Validate(&fsmpb.Command{Op: &fsmpb.Command_Register{Register: r}})
	if field, ok := errors.AsType[*fsm.FieldError](err); ok {
		return usageErrorf("-%s is %s, want %s", field.Field, field.Got, field.Limit)
	}
	return err
}

func parseMeta(values []string) (map[string]string, error) {
	meta := make(map[string]string, len(values))
	for _, v := range values {
		key, value, ok := strings.Cut(v, "=")
		if !ok || key == "" {
			return nil, usageErrorf("-meta is %q, want KEY=VALUE", v)
		}
		if _, twice := meta[key]; twice {
			return nil, usageErrorf("-meta gives %q twice", key)
		}
		meta[key] = value
	}
	return meta, nil
}
