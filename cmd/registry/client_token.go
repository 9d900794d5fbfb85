package main

import (
	"context"
	"os"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/metadata"

	"github.com/werbenhu/registry/rpc/registrypb"
	"github.com/werbenhu/registry/sdk"
)

const (
	flagTokenFile     = "token-file"
	tokenFileVariable = "REGISTRY_TOKEN_FILE"
	// tokenVariable has a token itself. There is no such flag: other users of the machine
	// see command lines.
	tokenVariable = "REGISTRY_TOKEN"
)

// tokenHint is for a token that is missing or not valid.
const tokenHint = "set " + tokenFileVariable + ", or -" + flagTokenFile + ", to the file of a token that is valid"

func tokenFileFlag() cli.Flag {
	return &cli.StringFlag{
		Name:    flagTokenFile,
		Usage:   "file with a token, which is followed (default: the token in " + tokenVariable + ", if there is one)",
		EnvVars: []string{tokenFileVariable},
	}
}

// withToken is the token of a client: of the file, or of the environment.
func withToken(file string) (sdk.Option, error) {
	if file != "" {
		return sdk.WithTokenFile(file), checkTokenFile(file)
	}
	text, err := environmentToken()
	return sdk.WithToken(text), err
}

// checkTokenFile refuses a token in the place of its file's name, and does not show it.
func checkTokenFile(file string) error {
	if _, _, err := registrypb.ParseToken(file); err == nil {
		return usageErrorf("-%s is a token itself, want the name of a file; a token goes into %s", flagTokenFile, tokenVariable)
	}
	return nil
}

func environmentToken() (string, error) {
	text := os.Getenv(tokenVariable)
	if text == "" {
		return "", nil
	}
	if _, _, err := registrypb.ParseToken(text); err != nil {
		return "", usageErrorf("%s: %w; the name of a file goes into %s", tokenVariable, err, tokenFileVariable)
	}
	return text, nil
}

// authorized adds the token, if there is one, to calls that do not go through the SDK.
func authorized(ctx context.Context, file string) (context.Context, error) {
	text, err := environmentToken()
	if file != "" {
		if err := checkTokenFile(file); err != nil {
			return ctx, err
		}
		if text, err = sdk.ReadTokenFile(file); err != nil {
			return ctx, usageErrorf("-%s: %w", flagTokenFile, err)
		}
	}
	if err != nil || text == "" {
		return ctx, err
	}
	return metadata.AppendToOutgoingContext(ctx, registrypb.AuthorizationHeader, "Bearer "+text), nil
}
