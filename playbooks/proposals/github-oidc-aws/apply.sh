#!/bin/sh
# As an admin of account [[ account ]]: trust GitHub, make the role, give it what the user [[ user ]] may do.
set -eu
cd "$(dirname "$0")"
provider="arn:[[ partition ]]:iam::[[ account ]]:oidc-provider/token.actions.githubusercontent.com"

[ "$(aws sts get-caller-identity --query Account --output text)" = "[[ account ]]" ] || {
  echo "this login is of another account than [[ account ]]" >&2
  exit 1
}
# One provider an account; it may be there for other roles already.
aws iam get-open-id-connect-provider --open-id-connect-provider-arn "$provider" >/dev/null 2>&1 ||
  aws iam create-open-id-connect-provider \
    --url https://token.actions.githubusercontent.com --client-id-list sts.amazonaws.com

# Fails if there is a role of this name: it is somebody else's.
aws iam create-role --role-name "[[ role ]]" --max-session-duration 3600 \
  --assume-role-policy-document file://trust-policy.json

for arn in $(aws iam list-attached-user-policies --user-name "[[ user ]]" \
  --query 'AttachedPolicies[].PolicyArn' --output text); do
  aws iam attach-role-policy --role-name "[[ role ]]" --policy-arn "$arn"
done

echo "Not copied, look at each: inline policies and groups of [[ user ]]:"
aws iam list-user-policies --user-name "[[ user ]]" --query PolicyNames --output text
aws iam list-groups-for-user --user-name "[[ user ]]" --query 'Groups[].GroupName' --output text
