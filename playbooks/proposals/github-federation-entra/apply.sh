#!/bin/sh
# As an owner of the application [[ client ]]: trust GitHub's tokens of one repository and ref.
set -eu
cd "$(dirname "$0")"
[ "$(az account show --query tenantId --output tsv)" = "[[ tenant ]]" ] || {
  echo "this login is of another tenant: az login --tenant [[ tenant ]]" >&2
  exit 1
}
# Fails if a credential of this name is there, or one with the same issuer and subject.
az ad app federated-credential create --id "[[ client ]]" --parameters federated-credential.json
