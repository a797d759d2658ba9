# The same as apply.sh, for Terraform. Use one of the two.
# If the account trusts GitHub already: terraform import aws_iam_openid_connect_provider.github ARN

resource "aws_iam_openid_connect_provider" "github" {
  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

resource "aws_iam_role" "ci" {
  name                 = "[[ role ]]"
  max_session_duration = 3600
  assume_role_policy   = file("${path.module}/trust-policy.json")
  depends_on           = [aws_iam_openid_connect_provider.github]
}
