package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/urfave/cli/v2"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/werbenhu/registry/fsm"
	"github.com/werbenhu/registry/rpc"
	"github.com/werbenhu/registry/sdk"
)

const (
	// tracesEnd bounds how long the end of a process waits for a collector.
	tracesEnd = time.Second
	// tracesPause is the least time between two log lines about a collector.
	tracesPause = time.Minute

	varEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	varTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	varProtocol       = "OTEL_EXPORTER_OTLP_PROTOCOL"
	varTracesProtocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	varTracesExporter = "OTEL_TRACES_EXPORTER"
	varOTelDisabled   = "OTEL_SDK_DISABLED"
)

// tracing sends spans to the collector that the environment names; nil: it names none.
// Spans wait in a queue of 2,048 (OTEL_BSP_MAX_QUEUE_SIZE); those that find it full are lost.
type tracing struct {
	provider *sdktrace.TracerProvider
	exporter sdktrace.SpanExporter
}

// startTracing reads OpenTelemetry's variables. Those that it does not read itself, such as
// OTEL_TRACES_SAMPLER, are read by OpenTelemetry's SDK. Nothing connects yet.
func startTracing(ctx context.Context, log *slog.Logger, attributes ...attribute.KeyValue) (*tracing, error) {
	endpoint := cmp.Or(os.Getenv(varTracesEndpoint), os.Getenv(varEndpoint))
	disabled, _ := strconv.ParseBool(os.Getenv(varOTelDisabled))
	if endpoint == "" || disabled {
		return nil, nil
	}
	switch exporter := os.Getenv(varTracesExporter); exporter {
	case "none":
		return nil, nil
	case "", "otlp":
	default:
		return nil, usageErrorf("%w", &fsm.FieldError{Field: varTracesExporter, Limit: "otlp or none", Got: fmt.Sprintf("%.64q", exporter)})
	}
	// Not the value in the errors: it may have a password.
	if at, err := url.Parse(endpoint); err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" {
		return nil, usageErrorf("%w", &fsm.FieldError{Field: varEndpoint, Limit: "a URL, such as http://127.0.0.1:4318", Got: "another text"})
	}
	otel.SetLogger(logr.New(otelLog{log}))
	client, err := tracesClient()
	if err != nil {
		return nil, err
	}
	otel.SetErrorHandler(&tracesErrors{log: log})
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", varEndpoint, err)
	}
	attributes = append(attributes, semconv.ServiceName(appName), semconv.ServiceVersion(buildVersion()))
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(attributes...), resource.WithFromEnv())
	if err != nil {
		return nil, usageErrorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return &tracing{sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about)), exporter}, nil
}

// tracesClient speaks the protocol that the environment names.
func tracesClient() (otlptrace.Client, error) {
	switch protocol := cmp.Or(os.Getenv(varTracesProtocol), os.Getenv(varProtocol)); protocol {
	case "", "http/protobuf":
		return otlptracehttp.NewClient(), nil
	case "grpc":
		return otlptracegrpc.NewClient(), nil
	default:
		return nil, usageErrorf("%w", &fsm.FieldError{Field: varProtocol, Limit: "http/protobuf or grpc", Got: fmt.Sprintf("%.64q", protocol)})
	}
}

// of returns the provider; nil: there are no spans.
func (t *tracing) of() trace.TracerProvider {
	if t == nil {
		return nil
	}
	return t.provider
}

// close sends what is left, for at most tracesEnd. What the collector did not take by then is
// lost.
func (t *tracing) close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), tracesEnd)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		otel.Handle(errors.Join(err, t.exporter.Shutdown(ctx))) // which ends the attempt under way
	}
}

// tracesErrors logs what OpenTelemetry complains about, at most once in tracesPause.
type tracesErrors struct {
	log  *slog.Logger
	last atomic.Int64 // time of the last line, in nanoseconds
}

// Handle implements otel.ErrorHandler.
func (t *tracesErrors) Handle(err error) {
	now, last := time.Now().UnixNano(), t.last.Load()
	if now-last < int64(tracesPause) || !t.last.CompareAndSwap(last, now) {
		return
	}
	t.log.Warn("traces are lost", "error", err)
}

// otelLog logs what OpenTelemetry says of itself, for instance that it cannot parse a variable.
// Values are left out: those of OTEL_EXPORTER_OTLP_HEADERS are secrets.
type otelLog struct{ log *slog.Logger }

// Enabled implements logr.LogSink: 0 are errors and 1 warnings; see otel.SetLogger.
func (otelLog) Enabled(level int) bool { return level <= 1 }

func (otelLog) Init(logr.RuntimeInfo)                 {}
func (l otelLog) Info(_ int, msg string, _ ...any)    { l.log.Warn("OpenTelemetry warns", "of", msg) }
func (l otelLog) Error(_ error, msg string, _ ...any) { l.log.Warn("OpenTelemetry failed", "to", msg) }
func (l otelLog) WithValues(...any) logr.LogSink      { return l }
func (l otelLog) WithName(string) logr.LogSink        { return l }

// traceCommand makes the span of a command that asks nodes, for which the context of its
// calls has it, and returns the option that traces the calls.
func traceCommand(c *cli.Context) (opt []sdk.Option, end func(), err error) {
	t, err := startTracing(c.Context, slog.New(slog.DiscardHandler))
	if t == nil || err != nil {
		return nil, func() {}, err
	}
	ctx, span := t.provider.Tracer("github.com/werbenhu/registry/cmd/registry").Start(c.Context, strings.TrimSpace(c.Command.HelpName))
	c.Context = ctx
	return []sdk.Option{sdk.WithDialOptions(rpc.ClientTraces(t.provider))}, func() { span.End(); t.close() }, nil
}
